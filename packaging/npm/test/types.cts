// Checked, not run.
import clusterd = require('clusterd');

const client = new clusterd.Clusterd();
client.list((error, workers) => console.log(error?.message, workers?.[0].monit.memory));
