// A plain Nest app, as its TypeScript is compiled: it knows nothing of clusters.
'use strict';
require('reflect-metadata');
const { Controller, Get, Module } = require('@nestjs/common');
const { NestFactory } = require('@nestjs/core');

class AppController {
  answer() {
    return { framework: 'nest', pid: process.pid };
  }
}
const answer = Object.getOwnPropertyDescriptor(AppController.prototype, 'answer');
Get()(AppController.prototype, 'answer', answer);
Controller()(AppController);

class AppModule {}
Module({ controllers: [AppController] })(AppModule);

NestFactory.create(AppModule, { logger: false }).then((app) => app.listen(process.env.PORT));
