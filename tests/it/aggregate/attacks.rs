//! What hostile clients and broken upstreams do: small requests that would make much of little, and answers that are not what
//! they say.

use super::upstream::{Reply, Upstream};
use super::{at_rest, forebay, get};

const KIB: usize = 1024;

/// A string of so many bytes.
fn text(length: usize) -> String {
    "x".repeat(length)
}

#[tokio::test]
async fn one_value_again_and_again_does_not_make_gigabytes() {
    let app = Upstream::start(|_| Reply::json(format!("\"{}\"", text(900 * KIB)))).await;
    let routes = r#"
        [route.list]
        path = "/list"
        [route.list.aggregate]
        meta = true
        [route.list.aggregate.source]
        same = { upstream = "app", path = "/users/{item}", for_each = "{query.ids}", max_items = 10_000 }
    "#;
    let forebay = forebay(app.address, routes).await;

    let fits = get(&forebay, &format!("/list?ids={}", vec!["1"; 10].join(","))).await;
    let beyond = get(&forebay, &format!("/list?ids={}", vec!["1"; 10_000].join(","))).await;

    assert_eq!((fits.status, fits.json()["same"].as_array().map(Vec::len)), (200, Some(10)));
    assert_eq!((beyond.status, beyond.reason()), (502, Some("upstream_too_large")));
    assert_eq!(app.lines().len(), 2, "each request made one call");
    at_rest(&forebay).await;
}
