// A web server for tsx, in TypeScript.
import { createServer, type Server } from 'node:http';

const server: Server = createServer((_request, response) => response.end(`pid=${process.pid}`));
server.listen(Number(process.env.PORT));
