"""Makes the site's reference pages from the code, and checks what the documents say."""
