//! `catalog`: all countries in memory, listed the way the page wants them. It hangs on the database and
//! on the page, which both hang on the configuration.

use std::{collections::BTreeMap, sync::Arc};

use mainstay::Provider;

use crate::{Services, blocking, database::Database, page::Page};

#[derive(Debug)]
pub(crate) struct Catalog {
    /// Of the database it was made from.
    pub(crate) label: String,
    countries: BTreeMap<String, Entry>,
    /// The list on the front page, made once and not per request.
    pub(crate) list: String,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) zones: u32,
}

impl Catalog {
    fn new(database: &Database, page: &Page) -> rusqlite::Result<Self> {
        let countries: BTreeMap<_, _> = database
            .countries()?
            .into_iter()
            .map(|country| (country.code, Entry { name: country.name, zones: country.zones }))
            .collect();
        let list = countries
            .iter()
            .take(page.limit)
            .map(|(code, country)| page.country(code, &country.name, country.zones))
            .collect();
        Ok(Self { label: database.label.clone(), countries, list })
    }

    pub(crate) fn country(&self, code: &str) -> Option<&Entry> {
        self.countries.get(code)
    }
}

pub(crate) async fn provide(provider: Provider<Catalog>, services: Services) {
    while let Ok(attempt) = provider.begin().await {
        let Ok(database) = attempt.wait_for(services.database).await else { continue };
        let Ok(page) = attempt.wait_for(services.page).await else { continue };
        let source = Arc::clone(&database);
        match blocking(move || Ok(Catalog::new(&source, &page)?)).await {
            Ok(catalog) => {
                let Ok(running) = attempt.ready(catalog) else { continue };
                let _ = running.failed().await;
            }
            // It is the database that has to restart; this attempt goes down with it.
            Err(error) => {
                let _ = services.registry.report(&database, error);
            }
        }
    }
}
