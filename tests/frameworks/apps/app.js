// A plain web server of Node: it knows nothing of clusters.
'use strict';
const http = require('node:http');

http.createServer((request, response) => response.end(`pid=${process.pid}`)).listen(process.env.PORT);
