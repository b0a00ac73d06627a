// A plain Express app: it knows nothing of clusters.
'use strict';
const express = require('express');

const app = express();
app.get('/', (request, response) => response.json({ framework: 'express', pid: process.pid }));
app.listen(process.env.PORT);
