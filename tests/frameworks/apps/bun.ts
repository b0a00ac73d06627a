// Bun's own server.
Bun.serve({
  port: Number(process.env.PORT),
  fetch: () => new Response(`pid=${process.pid}`),
});
