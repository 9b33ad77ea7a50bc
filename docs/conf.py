"""How ``make docs`` builds the site; see sphinx-doc.org and myst-parser.readthedocs.io."""

project = "Agent Attention for dense prediction"
extensions = ["myst_parser"]
myst_heading_anchors = 3  # links such as page.md#a-heading, as on a code forge
highlight_language = "text"  # of blocks that do not name theirs
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
