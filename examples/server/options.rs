//! The command line.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

pub(crate) const USAGE: &str = "\
usage: server [CONFIG] [--listen ADDRESS:PORT] [--limit FAILURES]

  CONFIG    a configuration file, or the directory of a server.toml;
            without it target/example-server/server.toml, made on first use
  --listen  where to listen, 127.0.0.1:8080 if not given; port 0 takes a free one
  --limit   a service that fails more often than that within a minute stays down
            until it is reset; without it each is tried for ever";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) config: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) limit: Option<u32>,
}

impl Options {
    /// `None` if only the usage is asked for.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let mut options = Self { config: None, listen, limit: None };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--listen") => {
                    let address = arguments.next().ok_or("--listen wants an address")?;
                    let address = address.to_string_lossy();
                    options.listen = address
                        .parse()
                        .map_err(|_| format!("`{address}` is no address with a port"))?;
                }
                Some("--limit") => {
                    let limit = arguments.next().ok_or("--limit wants a number")?;
                    let limit = limit.to_string_lossy();
                    let parsed = limit.parse().map_err(|_| format!("`{limit}` is no limit"))?;
                    options.limit = Some(parsed);
                }
                Some(option) if option.starts_with('-') => {
                    return Err(format!("unknown option `{option}`"));
                }
                _ if options.config.is_some() => return Err("more than one CONFIG".into()),
                _ => options.config = Some(argument.into()),
            }
        }
        Ok(Some(options))
    }
}
