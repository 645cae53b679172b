//! The model of a server that nobody named one of: whatever it says that it serves.

use super::args::ModelArgs;
use super::model::{Who, shown_url, usage};
use super::models::{Asked, ask_all};
use super::pool::PATIENCE;
use crate::job::Protocol;
use crate::pipeline::Error;
use crate::provider::{Provider, Task};
use crate::store::Manifest;

impl ModelArgs {
    /// The same arguments for the one model that the server at the base URL serves. Where there is a plan, its model
    /// is what was served then, and nobody is asked.
    ///
    /// # Errors
    /// [`Error::NothingOffered`] where it does not say, [`Error::Usage`] where it serves several.
    pub(super) fn with_served_model(&self, planned: Option<&Manifest>) -> Result<Self, Error> {
        let with =
            |model: String| Self { named: model.clone(), model: Some(model), ..self.clone() };
        if let Some(manifest) = planned.filter(|it| it.pool.is_none() && !it.job.is_varied()) {
            return Ok(with(manifest.job.model.clone()));
        }
        let who = Who::of_provider(Provider::unnamed());
        let base_url = who.place(self.base_url.as_deref(), None);
        let (shown, headers) = (shown_url(&base_url), self.headers.clone());
        let asked = Asked { name: shown.clone(), who, base_url, headers };
        let mut answers = ask_all(vec![asked], self.api_key_file.as_deref(), PATIENCE);
        let Some((_, _, answer)) = answers.pop() else { return Ok(self.clone()) };
        let nothing = |why: String, is_refused| Error::NothingOffered { why, is_refused };
        let listed = answer
            .map_err(|error| nothing(format!("{shown}: {}", error.reason), error.is_refused))?;
        let is_embedding = self.protocol.is_some_and(|it| Protocol::from(it).is_embeddings());
        let task = if is_embedding { Task::Embeddings } else { Task::Chat };
        let mut models = listed.into_iter().filter(|model| model.task == task).map(|it| it.id);
        match (models.next(), models.next()) {
            (Some(only), None) => Ok(with(only)),
            (Some(first), Some(second)) => Err(usage(format!(
                "{shown} serves several models ({first}, {second}{}): name one with -m",
                if models.next().is_some() { ", …" } else { "" }
            ))),
            (None, _) => Err(nothing(format!("{shown}: it offers no model for this"), false)),
        }
    }
}
