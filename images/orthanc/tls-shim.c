/* libssl.so for Debian's libcivetweb, which loads its functions by name and calls SSL_get_peer_certificate unchecked.
   OpenSSL 3 has that name as a macro only (openssl/ssl.h), so the pointer is null: Orthanc 1.13.0 of forky (as 1.12.7 of
   trixie) dies of a segmentation fault at its first HTTPS connection (civetweb issue 1334). Everything else comes from libssl.so.3. */
extern void *SSL_get1_peer_certificate(const void *ssl);

void *SSL_get_peer_certificate(const void *ssl)
{
    return SSL_get1_peer_certificate(ssl);
}
