// Becomes one file together with Node itself.
'use strict';
const { createServer } = require('node:http');

createServer((_, answer) => answer.end(`pid=${process.pid}`)).listen(process.env.PORT);
