// Answers with its pid after DELAY milliseconds, once it has the whole body.
'use strict';
const http = require('node:http');

http.createServer((request, response) => {
  let length = 0;
  request.on('data', (piece) => { length += piece.length; });
  request.on('end', () => setTimeout(() => response.end(JSON.stringify({ pid: process.pid, length })), Number(process.env.DELAY)));
}).listen(process.env.PORT);
