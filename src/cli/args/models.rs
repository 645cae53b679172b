//! Which endpoints are asked for their models.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ConfigArgs;
use crate::cli::parse::{header, some_time};
use crate::config::Header;

#[derive(Debug, Args)]
pub(in crate::cli) struct ModelsArgs {
    /// Endpoints of a config file, or providers; by default all of the config files, and the providers
    /// whose variables are set
    #[arg(value_name = "NAME")]
    pub(in crate::cli) names: Vec<String>,
    /// Where the endpoint is
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) base_url: Option<String>,
    /// A file that holds the API key
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) api_key_file: Option<PathBuf>,
    /// A header of every call; a secret as NAME=env:VARIABLE or NAME=file:PATH
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(in crate::cli) headers: Vec<Header>,
    /// How long an endpoint may take
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = some_time)]
    pub(in crate::cli) timeout: Duration,
    /// Print one line of JSON a model
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
}
