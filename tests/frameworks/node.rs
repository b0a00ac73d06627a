//! Web frameworks for Node, each with an app that knows nothing of clusters.
use super::client::get;
use super::support::{kill_master, kill_one, node_app, reload, under_load};

fn serves_and_survives(framework: &str) {
    let cluster = node_app(&format!("{framework}.js"), &[]);
    assert_eq!(cluster.app().protocol, "node");
    assert!(get(cluster.address(), "/").unwrap().contains(framework));
    under_load(&cluster, || reload(&cluster)).nobody_hurt();
    under_load(&cluster, || kill_one(&cluster)).cut_at_most_in_hand_of(1);
    let seen = under_load(&cluster, || kill_master(&cluster));
    seen.nobody_refused_or_hung();
    assert!(seen.short.cut <= 1 && seen.kept.cut == 0, "{seen:?}");
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn express_serves_and_survives() {
    serves_and_survives("express");
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn fastify_serves_and_survives() {
    serves_and_survives("fastify");
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn koa_serves_and_survives() {
    serves_and_survives("koa");
}
