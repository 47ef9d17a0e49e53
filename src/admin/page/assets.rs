//! The files of the page. Compiled in: a sidecar has no folder of its own, and nothing is loaded from elsewhere.

/// A path with its content type and bytes.
pub fn find(path: &str) -> Option<(&'static str, &'static str)> {
    ALL.iter().find(|(name, _, _)| *name == path).map(|(_, kind, content)| (*kind, *content))
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

pub const ALL: [(&str, &str, &str); 4] = [
    ("/assets/page.css", CSS, include_str!("assets/page.css")),
    ("/assets/page.js", JS, include_str!("assets/page.js")),
    ("/assets/patch.js", JS, include_str!("assets/patch.js")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];
