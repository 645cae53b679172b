//! The note that answers are being taken over from an output: until it is gone the plan does not count.

use super::names::{ADOPTING, MANIFEST};
use super::{Error, Held, Identity, WorkDir, disk, manifest};

impl WorkDir {
    /// Whether answers are being taken over, so that the plan does not count yet.
    pub(super) fn is_adopting(&self) -> Result<bool, Error> {
        let path = self.path().join(ADOPTING);
        let Some(note) = disk::read_if_there(&path)? else { return Ok(false) };
        let note = String::from_utf8_lossy(&note);
        let words: Vec<_> = note.split_whitespace().map(str::to_owned).collect();
        let Ok([run, plan]) = <[String; 2]>::try_from(words) else {
            let reason = "it does not say what it belongs to".to_owned();
            return Err(Error::Damaged { path, reason });
        };
        let theirs = Identity { run, plan, generation: self.generation, shard: None };
        let planned = manifest::read(&self.base().join(MANIFEST)).ok().flatten();
        let plan = planned.map_or_else(|| theirs.plan.clone(), |manifest| manifest.plan);
        Identity { run: self.run().to_owned(), plan, ..theirs.clone() }
            .assert_is(&theirs, &path)?;
        Ok(true)
    }
}

impl Held {
    /// Notes that the plan to be made is of no use before [`Held::end_adopting`]: until then its
    /// journals lack answers that are there to be taken over.
    ///
    /// # Errors
    /// When the note cannot be made durable.
    pub fn begin_adopting(&self) -> Result<(), Error> {
        let note = format!("{} {}\n", self.run(), self.plan());
        disk::replace(&self.path().join(ADOPTING), note.as_bytes())
    }

    /// The answers are taken over: the plan counts.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn end_adopting(&self) -> Result<(), Error> {
        disk::remove(&self.path().join(ADOPTING))?;
        disk::sync_dir(self.path())
    }
}
