"""The page behind ``--report report.html``: what it shows, its charts, and its template, style and script."""
