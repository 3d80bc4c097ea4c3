"""What promotion and the stages before it found, drawn: the page, its Markdown and the picture files."""
