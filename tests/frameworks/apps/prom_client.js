// Metrics of every kind of prom-client; each request is an order.
const prom = require('prom-client');
new prom.AggregatorRegistry(); // answers the primary
prom.collectDefaultMetrics();
const orders = new prom.Counter({ name: 'shop_orders_total', help: 'Orders by kind.', labelNames: ['kind', 'app'] });
const level = new prom.Gauge({ name: 'shop_level', help: 'Highest slot.', aggregator: 'max' });
const took = new prom.Histogram({ name: 'shop_took_seconds', help: 'Time of an order.', labelNames: ['kind'], buckets: [0.1, 1] });
const size = new prom.Summary({ name: 'shop_size_bytes', help: 'Size of an order.' });
level.set(Number(process.env.CLUSTERD_SLOT));
require('http').createServer((request, answer) => {
  orders.inc({ kind: 'book', app: 'mine' });
  took.observe({ kind: 'book' }, 0.5);
  size.observe(10);
  answer.end('ordered');
}).listen(process.env.PORT, '127.0.0.1');
