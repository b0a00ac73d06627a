# Metrics of every kind of prometheus_client; each request is an order.
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from prometheus_client import Counter, Gauge, Histogram, Summary

orders = Counter("shop_orders_total", "Orders by kind.", ["kind"])
alive = Gauge("shop_alive", "Processes that serve.", multiprocess_mode="livesum")
slot = Gauge("shop_slot", "Slot by process.", multiprocess_mode="liveall")
took = Histogram("shop_took_seconds", "Time of an order.", buckets=[0.1, 1])
size = Summary("shop_size_bytes", "Size of an order.")
alive.set(1)
slot.set(int(os.environ["CLUSTERD_SLOT"]))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        orders.labels("book").inc()
        took.observe(0.5)
        size.observe(10)
        self.send_response(200)
        self.send_header("content-length", "7")
        self.end_headers()
        self.wfile.write(b"ordered")

    def log_message(self, *args):
        pass


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
