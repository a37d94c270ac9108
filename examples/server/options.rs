//! The command line.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use crate::config::OnEdit;

pub(crate) const USAGE: &str = "\
usage: server [CONFIG] [--listen ADDRESS:PORT] [--on-edit reload|restart] [--limit FAILURES]

  CONFIG     a configuration file, or the directory of a server.toml; the default is
             target/example-server/server.toml, which is created if it does not exist
  --listen   the address to listen on, 127.0.0.1:8080 by default; port 0 means any free port
  --on-edit  what an edit of the configuration does: `reload`, the default, builds everything anew
             beside the old services, and `restart` takes the old ones down first
  --limit    the supervisor of a service gives up after more failures than this within a
             minute, until a restart; by default there is no limit";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) config: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) on_edit: OnEdit,
    pub(crate) limit: Option<u32>,
}

impl Options {
    /// Returns `None` if only the usage was requested.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let mut options = Self { config: None, listen, on_edit: OnEdit::Reload, limit: None };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--help" | "-h") => return Ok(None),
                Some("--listen") => {
                    let address = arguments.next().ok_or("--listen needs an address")?;
                    let address = address.to_string_lossy();
                    options.listen = address
                        .parse()
                        .map_err(|_| format!("`{address}` is not an address with a port"))?;
                }
                Some("--on-edit") => {
                    let what = arguments.next().ok_or("--on-edit needs `reload` or `restart`")?;
                    options.on_edit = match what.to_str() {
                        Some("reload") => OnEdit::Reload,
                        Some("restart") => OnEdit::Restart,
                        _ => {
                            let what = what.to_string_lossy();
                            return Err(format!("`{what}` is neither `reload` nor `restart`"));
                        }
                    };
                }
                Some("--limit") => {
                    let limit = arguments.next().ok_or("--limit needs a number")?;
                    let limit = limit.to_string_lossy();
                    let parsed = limit
                        .parse()
                        .map_err(|_| format!("`{limit}` is not a number of failures"))?;
                    options.limit = Some(parsed);
                }
                Some(option) if option.starts_with('-') => {
                    return Err(format!("unknown option `{option}`"));
                }
                _ if options.config.is_some() => return Err("there is more than one CONFIG".into()),
                _ => options.config = Some(argument.into()),
            }
        }
        Ok(Some(options))
    }
}
