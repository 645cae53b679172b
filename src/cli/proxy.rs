//! The proxies that the environment names, as curl reads them.

use super::question::variable;
use crate::http::Proxies;
use crate::pipeline::Error;

/// Makes the proxies of the environment those of this process.
///
/// # Errors
/// When a variable names no proxy that can be used.
pub(super) fn install_proxies() -> Result<(), Error> {
    let either = |lower: &str| variable(lower).or_else(|| variable(&lower.to_ascii_uppercase()));
    // A web server that runs this program as a CGI script sets HTTP_PROXY to what a request says.
    let is_cgi = variable("REQUEST_METHOD").is_some();
    let http = if is_cgi { variable("http_proxy") } else { either("http_proxy") };
    let proxies = Proxies {
        http: trimmed(http),
        https: trimmed(either("https_proxy")),
        all: trimmed(either("all_proxy")),
        no: trimmed(either("no_proxy")),
    };
    proxies.install().map_err(|error| Error::Usage(error.to_string()))
}

fn trimmed(value: Option<String>) -> String {
    value.map(|value| value.trim().to_owned()).unwrap_or_default()
}
