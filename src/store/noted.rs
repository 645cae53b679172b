//! Where models were when a plan was made.

use serde::{Deserialize, Serialize};

use crate::job::Transport;

/// Where a model was when the plan was made. Not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotedRoute {
    /// Where its endpoint was; nothing for models without one.
    pub base_url: Option<String>,
    /// The provider it belongs to, by name; nothing where none was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How its calls travel.
    #[serde(default, skip_serializing_if = "Transport::is_http")]
    pub transport: Transport,
}
