"""The site's reference pages, made from the code, and checks of what the documents say."""
