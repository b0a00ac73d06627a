#!/bin/sh
# Starts the server as a child, as start scripts do.
export MODE=production
node app.js
