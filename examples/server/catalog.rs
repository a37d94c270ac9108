//! `catalog`: all countries in memory, and the list of them on the front page. It is built from the
//! database and from the page, which are both built from the configuration.

use std::{collections::BTreeMap, sync::Arc};

use mainstay::supervise::Build;

use crate::{BoxError, Services, blocking, database::Database, page::Page};

#[derive(Debug)]
pub(crate) struct Catalog {
    /// The label of the database from which it was built.
    pub(crate) label: String,
    countries: BTreeMap<String, Entry>,
    /// The list on the front page, rendered once and not for each request.
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

pub(crate) async fn build(build: Build<Catalog>, services: Services) -> Result<Catalog, BoxError> {
    let database = build.wait_for(services.database).await?;
    let page = build.wait_for(services.page).await?;
    let source = Arc::clone(&database);
    let built = blocking(move || Ok(Catalog::new(&source, &page)?)).await;
    built.inspect_err(|error| {
        // The database must be rebuilt. Its failure invalidates this build, too.
        let _ = services.registry.fail_instance(&database, error.to_string());
    })
}
