// Nothing to do yet. That it runs makes the runner register post.js.
