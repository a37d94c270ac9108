//! `page`: the frame of the HTML page. It is built from the configuration only, so it stays up
//! while the database restarts.

use mainstay::{ServiceId, error::WaitForError, supervise::Build};

use crate::config::Config;

#[derive(Debug)]
pub(crate) struct Page {
    head: String,
    /// The number of countries on the page.
    pub(crate) limit: usize,
}

impl Page {
    fn new(config: &Config) -> Self {
        let (title, greeting) = (escape(&config.title), escape(&config.greeting));
        let head = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <title>{title}</title>\n<h1>{title}</h1>\n<p>{greeting}</p>\n"
        );
        Self { head, limit: config.limit }
    }

    pub(crate) fn render(&self, list: &str) -> String {
        let foot = r#"<p><a href="/services">services</a> · <a href="/services.dot">graph</a></p>"#;
        format!("{}<ul>\n{list}</ul>\n{foot}\n</html>\n", self.head)
    }

    pub(crate) fn country(&self, code: &str, name: &str, zones: u32) -> String {
        let (code, name) = (escape(code), escape(name));
        format!("<li><a href=\"/countries/{code}\">{name}</a> ({zones})</li>\n")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Only the wait can fail: the build was invalidated, or the registry is closed. In both cases the
/// result does not matter.
pub(crate) async fn build(
    build: Build<Page>,
    config: ServiceId<Config>,
) -> Result<Page, WaitForError> {
    Ok(Page::new(&*build.wait_for(config).await?))
}
