/* Stands in for Orthanc Explorer 2, which is on by default in orthancteam/orthanc: "/" leads to /ui/app/. Written against Orthanc's
   plugin interface (OrthancCPlugin.h), of which these are the parts that it uses; without a C library, so that any compiler makes it
   for any image. */

typedef struct Context Context;
struct Context {
    void *manager;
    const char *version;
    void (*release)(void *);
    int (*invoke)(Context *, int service, const void *parameters);
};
enum { REGISTER_REST_CALLBACK = 1000, ANSWER_BUFFER = 2000, REDIRECT = 2002 };

static Context *orthanc;

static int to_page(void *output, const char *url, const void *request) {
    const struct { void *output; const char *where; } answer = {output, "ui/app/"};
    return orthanc->invoke(orthanc, REDIRECT, &answer);
}

static int page(void *output, const char *url, const void *request) {
    static const char text[] = "<title>Another page</title>";
    const struct { void *output; const char *text; unsigned size; const char *type; } answer = {output, text, sizeof text - 1, "text/html"};
    return orthanc->invoke(orthanc, ANSWER_BUFFER, &answer);
}

int OrthancPluginInitialize(Context *context) {
    const struct { const char *path; int (*callback)(void *, const char *, const void *); } pages[] = {{"/", to_page}, {"/ui/app/?", page}};
    orthanc = context;
    for (int i = 0; i < 2; i++)
        orthanc->invoke(orthanc, REGISTER_REST_CALLBACK, &pages[i]);
    return 0;
}

void OrthancPluginFinalize(void) {}
const char *OrthancPluginGetName(void) { return "orthanc-explorer-2"; }
const char *OrthancPluginGetVersion(void) { return "contract"; }
