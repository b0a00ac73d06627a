// Tells who answers.
'use strict';
module.exports = () => ({ register_middlewares: (app) => app.get('/', (_, answer) => answer.send(`pid=${process.pid}`)) });
