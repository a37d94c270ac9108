//! `page`: the frame of the HTML page. It hangs on the configuration alone and stays up while the
//! database restarts.

use mainstay::{Provider, ServiceId};

use crate::config::Config;

#[derive(Debug)]
pub(crate) struct Page {
    head: String,
    /// How many countries fit on it.
    pub(crate) limit: usize,
}

impl Page {
    fn new(config: &Config) -> Self {
        let (title, greeting) = (escape(&config.title), escape(&config.greeting));
        let head = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <h1>{title}</h1>\n<p>{greeting}</p>\n"
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

pub(crate) async fn provide(provider: Provider<Page>, config: ServiceId<Config>) {
    while let Ok(attempt) = provider.begin().await {
        // Overtaken or closed: `begin` tells which, so there is nothing to look at here.
        let Ok(config) = attempt.wait_for(config).await else { continue };
        let Ok(running) = attempt.ready(Page::new(&config)) else { continue };
        let _ = running.failed().await;
    }
}
