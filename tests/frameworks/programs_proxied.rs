//! Programs other than Node behind nginx, which may not repeat a request (docs/proxies.md has the table): what a reload costs is what
//! the program closes by itself when it gets SIGTERM.
use super::driver::launch;
use super::proxies::{CLIENTS, Proxy, under_load};
use super::support::reload;
use super::table::row;

/// Reloads of one run; RELOADS sets another number.
const RELOADS: u32 = 1;

/// Every answer is 200, or the 502 of a connection that a worker had and closed: each client has one at a time.
fn behind_nginx(program: &str) {
    let Some(cluster) = launch(row(program, ""), &["--drain-delay", "500ms", "--balance", "kernel"]) else {
        return;
    };
    let Some(proxy) = Proxy::nginx(cluster.address()) else { return cluster.stop() };
    let reloads = std::env::var("RELOADS").map_or(RELOADS, |text| text.parse().unwrap());
    let (count, bad) = under_load(proxy.address, || (0..reloads).for_each(|_| reload(&cluster)));
    eprintln!("{program}: {} of {count} answers were not 200 in {reloads} reloads", bad.len());
    assert!(bad.iter().all(|status| status.contains(" 502 ")), "{bad:?}");
    let most = 2 * CLIENTS * reloads as usize;
    assert!(bad.len() <= most && count > bad.len() as u64, "{} of {count}: {:?}", bad.len(), &bad[..bad.len().min(8)]);
    drop(proxy);
    cluster.stop();
}

/// `name: program;`, a test each.
macro_rules! programs {
    ($($name:ident: $program:literal;)*) => {
        $(
            #[test]
            #[ignore = "installs frameworks and nginx"]
            fn $name() {
                behind_nginx($program);
            }
        )*
    };
}

programs! {
    uvicorn_behind_nginx: "uvicorn";
    gunicorn_behind_nginx: "gunicorn";
    puma_behind_nginx: "puma";
    bun_behind_nginx: "Bun";
    go_behind_nginx: "Go";
}
