//! What the benches share: servers to measure, the load, what `/proc` says, figures.
pub(crate) mod floor;
pub(crate) mod least;
pub(crate) mod load;
pub(crate) mod pm2;
pub(crate) mod processes;
pub(crate) mod servers;
pub(crate) mod stats;

/// What to call first in `main`: a bench's binary is also the processes that stand in for others.
pub(crate) fn be_one_of_them(args: &[String]) {
    let port = || args[1].parse().expect("a port");
    let workers = || args[2].parse().expect("a number");
    match args.first().map(String::as_str) {
        Some("floor") => floor::primary(port(), workers()),
        Some("floor-worker") => floor::worker(),
        Some("least") => least::primary(port(), workers(), &args[3]),
        _ => {}
    }
}
