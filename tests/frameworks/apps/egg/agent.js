// Answers whoever sends something, in every way that egg's messenger has.
'use strict';
module.exports = (agent) => {
  const { messenger } = agent;
  messenger.on('egg-ready', () => messenger.sendToApp('ready', 'agent'));
  messenger.on('up', (data) => {
    messenger.sendTo(data.pid, 'back', data.how);
    messenger.sendRandom('any', data.how);
  });
  messenger.on('all', (data) => messenger.sendTo(data.pid, 'back', data.how));
};
