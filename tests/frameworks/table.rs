//! The table of programs: what people run, as they type it, and what clusterd promises for each. The page docs/frameworks.md
//! has the same rows (`page`); `driver` does to each what its row says.
use super::driver::check;

/// A program as it is run.
pub(crate) struct Row {
    /// What it is called.
    pub(crate) program: &'static str,
    /// What is typed for clusterd before the command; the ports are added.
    pub(crate) options: &'static str,
    /// The command, with 8080 for the port of the app.
    pub(crate) command: &'static str,
    /// The protocol that `auto` means for it.
    pub(crate) protocol: &'static str,
    /// What its end by SIGTERM costs.
    pub(crate) reload: Cuts,
    /// What has to be there.
    pub(crate) needs: Needs,
}

/// Which requests the end of a program cuts, whoever ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cuts {
    Nothing,
    /// Those that it is answering, or has accepted and not read.
    InHand,
}

/// What a row needs from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Npm,
    Python,
    /// A project of `web/` or `nuxt/`, in whose folder the command is typed.
    Built(&'static str),
    /// A program of the system, and the npm packages.
    Both(&'static str),
    /// A program of the system.
    System(&'static str),
    /// `server` made from this file.
    Compiled(&'static str),
    /// `worker` made of workers/rust.
    Worker,
}

/// Rows with a test each: `name: program, options, command, protocol, reload, needs;`. The names of those that are built first begin
/// with `built_`: `.ci/run` leaves them out where time is short.
macro_rules! rows {
    ($($name:ident: $program:literal, $options:literal, $command:literal, $protocol:literal, $reload:expr, $needs:expr;)*) => {
        pub(crate) const ROWS: &[Row] = &[$(Row {
            program: $program,
            options: $options,
            command: $command,
            protocol: $protocol,
            reload: $reload,
            needs: $needs,
        }),*];

        mod each {
            $(
                #[test]
                #[ignore = "installs frameworks and versions of Node"]
                fn $name() {
                    super::check(super::row($program, $options));
                }
            )*
        }
    };
}

use Cuts::{InHand, Nothing};
use Needs::{Both, Built, Compiled, Npm, Python, System, Worker};

rows! {
    node_app: "Node", "", "node app.js", "node", Nothing, Npm;
    node_watch: "Node, `--watch`", "", "node --watch app.js", "bind", InHand, Npm;
    node_run: "Node, `--run`", "", "node --run start", "bind", InHand, Npm;
    built_node_sea: "Node, single executable", "", "./app", "bind", InHand, Built("sea");
    built_node_sea_channel: "Node, single executable", "--protocol node", "./app", "node", Nothing, Built("sea");
    express: "Express", "", "node express.js", "node", Nothing, Npm;
    fastify: "Fastify", "", "node fastify.js", "node", Nothing, Npm;
    koa: "Koa", "", "node koa.js", "node", Nothing, Npm;
    hapi: "Hapi", "", "node hapi.js", "node", Nothing, Npm;
    hono: "Hono", "", "node hono.mjs", "node", Nothing, Npm;
    nest: "Nest", "", "node nest.js", "node", Nothing, Npm;
    built_next: "Next", "", "next start", "node", Nothing, Built("next");
    built_next_standalone: "Next, standalone", "", "node .next/standalone/next/server.js", "node", Nothing, Built("next");
    built_nitro: "Nitro, the server of Nuxt", "", "node .output/server/index.mjs", "node", Nothing, Built("nitro");
    built_nuxt: "Nuxt", "", "node .output/server/index.mjs", "node", Nothing, Built("nuxt");
    built_svelte: "SvelteKit, adapter-node", "", "node build", "node", Nothing, Built("svelte");
    built_astro: "Astro, adapter `node`", "", "node dist/server/entry.mjs", "node", Nothing, Built("astro");
    built_react_router: "React Router (Remix)", "", "react-router-serve build/server/index.js", "node", Nothing, Built("react-router");
    built_verdaccio: "verdaccio", "", "verdaccio --config config.yaml --listen 8080", "node", Nothing, Built("verdaccio");
    socket_io: "socket.io", "--balance sticky", "node socket.io.js", "node", Nothing, Npm;
    ws: "ws", "", "node ws.js", "node", Nothing, Npm;
    tsx: "tsx", "", "tsx server.ts", "bind", InHand, Npm;
    tsx_import: "tsx, `--import`", "", "node --import tsx server.ts", "node", Nothing, Npm;
    npm_start: "npm", "", "npm start", "bind", InHand, Both("npm");
    npx: "npx", "", "npx tsx server.ts", "bind", InHand, Both("npx");
    yarn: "yarn", "", "yarn start", "bind", InHand, Npm;
    pnpm: "pnpm", "", "pnpm start", "bind", InHand, Npm;
    bun: "Bun", "", "bun bun.ts", "bind", InHand, Npm;
    deno: "Deno", "", "deno run -A deno.ts", "bind", InHand, Npm;
    http_server: "Python http.server", "", "python3 server.py", "bind", InHand, Python;
    uvicorn: "uvicorn", "", "uvicorn main:app --port 8080", "bind", InHand, Python;
    uvicorn_fd: "uvicorn, `--fd`", "", "uvicorn main:app --fd 3", "bind", InHand, Python;
    gunicorn: "gunicorn", "", "gunicorn wsgi:app", "bind", InHand, Python;
    gunicorn_bind: "gunicorn, `--bind`", "", "gunicorn --bind 0.0.0.0:8080 --workers 2 wsgi:app", "bind", InHand, Python;
    hypercorn: "hypercorn", "", "hypercorn main:app --bind 0.0.0.0:8080", "bind", InHand, Python;
    granian: "granian", "", "granian --interface asgi --port 8080 main:app", "bind", InHand, Python;
    daphne: "daphne", "", "daphne -b 0.0.0.0 -p 8080 main:app", "bind", InHand, Python;
    aiohttp: "aiohttp", "", "python3 aio.py", "bind", InHand, Python;
    flask: "Flask", "", "flask --app flask_app run --port 8080", "bind", InHand, Python;
    django: "Django", "", "python3 manage.py runserver --noreload 8080", "bind", InHand, Python;
    puma: "puma", "", "puma --port 8080", "bind", InHand, System("puma");
    php: "PHP", "", "php -S 0.0.0.0:8080 index.php", "bind", InHand, System("php");
    go: "Go", "", "./server", "bind", InHand, Compiled("main.go");
    rust: "Rust", "", "./server", "bind", InHand, Compiled("server.rs");
    rust_sockets: "workers/rust, `LISTEN_FDS`", "", "./worker", "bind", Nothing, Worker;
    rust_channel: "workers/rust, over the channel", "--protocol node", "./worker", "node", Nothing, Worker;
    c: "C, linked statically", "", "./server", "bind", InHand, Compiled("server.c");
    script: "a shell script", "", "./start.sh", "bind", InHand, Npm;
    sh: "sh", "", "sh start.sh", "bind", InHand, Npm;
    env: "env", "", "env X=1 node app.js", "bind", InHand, Npm;
    nice: "nice", "", "nice -n 5 node app.js", "bind", InHand, Npm;
    timeout: "timeout", "", "timeout 1h node app.js", "bind", InHand, Npm;
}

pub(crate) fn row(program: &str, options: &str) -> &'static Row {
    ROWS.iter().find(|row| row.program == program && row.options == options).unwrap()
}
