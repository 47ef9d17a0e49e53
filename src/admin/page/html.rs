//! The page around a view. It is whole without scripts; those only keep it up to date.

use super::views::{Name, Part, View};
use crate::load::report::svg::escape;

/// A whole document. `query` is what `/events` and the other forms need besides the name: `route=slow`, or nothing.
pub fn document(name: Name, route: Option<&str>, view: &View) -> String {
    let query = route.map_or_else(String::new, |route| format!("&route={}", encoded(route)));
    let mut links = String::new();
    for other in Name::ALL {
        let current = if other == name { " aria-current=\"page\"" } else { "" };
        links.push_str(&format!("<a href=\"/{}\"{current}>{}</a>", other.as_str(), other.title()));
    }
    let (word, title) = (name.as_str(), name.title());
    let parts: String = view.parts.iter().map(html).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Forebay: {title}</title>\n\
         <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"/assets/page.css\">\n\
         <script type=\"module\" src=\"/assets/page.js\"></script></head>\n\
         <body data-events=\"/events?view={word}{query}\">\n\
         <a class=\"skip\" href=\"#main\">Skip to the numbers</a>\n\
         <header><h1>Forebay</h1><nav aria-label=\"Views\">{links}</nav>\n\
         <p id=\"live\" hidden><button type=\"button\" id=\"pause\" aria-pressed=\"false\">Pause</button>\
         <span id=\"status\" role=\"status\">connecting</span></p></header>\n\
         <main id=\"main\">\n{parts}</main>\n\
         <footer><p><noscript>Reload for new numbers. </noscript>The same for programs and terminals: <a href=\"/{word}?format=json{query}\">JSON</a>, \
         <a href=\"/{word}?format=text{query}\">text</a> (<code>curl</code> gets text), \
         <code>forebay top</code>. Besides: <a href=\"/metrics\">/metrics</a>, <a href=\"/readyz\">/readyz</a>, \
         <a href=\"/livez\">/livez</a>.</p></footer>\n</body></html>\n",
        query = escape(&query),
    )
}

fn html(part: &Part) -> String {
    match part {
        Part::Table(table) => table.html(),
        Part::Block { id, html, .. } => format!("<div id=\"{id}\">{html}</div>\n"),
    }
}

/// For a query: whatever is not plain is percent-encoded.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_from_the_query_stays_text() {
        let view = View { json: serde_json::Value::Null, parts: vec![] };

        let page = document(Name::Latency, Some("a\"><script>b"), &view);

        assert!(page.contains("data-events=\"/events?view=latency&amp;route=a%22%3E%3Cscript%3Eb\""), "{page}");
        assert_eq!(page.matches("<script").count(), 1);
    }
}
