"""What fails between a scanner and its archive, done to real containers; each image that was acknowledged is looked for at the end."""
