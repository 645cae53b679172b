//! The manifest: the plan on disk.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::sources::{SourcePrint, Walk};
use super::{Error, FORMAT, NotedRoute, disk};
use crate::job::{JobSpec, OwnModels, Pool, Setting, Spending, Transport};

/// The plan of a work directory: the job, the input it was made for, and the shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the work directory's format.
    pub format: u32,
    /// The version of rowmill that made the plan.
    pub rowmill: String,
    /// The run of its work directory.
    pub run: String,
    /// Its own identity, drawn when it was made: what belongs to it says so.
    pub plan: String,
    /// The identities of the plans of earlier generations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// When it was made, as RFC 3339 has it.
    pub created: String,
    /// 1 for the first plan of a work directory.
    pub generation: u32,
    /// The settings of earlier generations, in order; answers may be from any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    /// What became of the rows of the generation before; nothing in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// The newest earlier generation whose outputs were published; 0 where none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub published: u32,
    /// What is asked.
    pub job: JobSpec,
    /// Where the endpoint was when the plan was made; nothing for models without one.
    pub base_url: Option<String>,
    /// The provider it belongs to, by name; nothing where none was named. Not compared: it tells
    /// whose key is sent to those who work the plan without being told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How its calls travel. Not compared.
    #[serde(default, skip_serializing_if = "Transport::is_http")]
    pub transport: Transport,
    /// The same of the job's other models, in their order, then of those that names stand for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<NotedRoute>,
    /// Where its models are, where there are several places. Not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Where each line names its model itself, those that stand for themselves. Not compared.
    #[serde(default, skip_serializing_if = "OwnModels::is_empty")]
    pub own_models: OwnModels,
    /// Files that were there before the run and that its outputs may take the place of.
    pub replaces: Vec<String>,
    /// The inputs: one or more.
    #[serde(rename = "source", with = "super::sources")]
    pub sources: Vec<SourcePrint>,
    /// Which of its rows are asked about.
    pub chosen: Chosen,
    /// How many rows were chosen, however many answers are wanted to each.
    pub selected: u64,
    /// How many of those are left out because an earlier row has their id.
    pub skipped: u64,
    /// The shards; they tile the input, once for each variant of the job: those of one range stand one
    /// after the other, in the order of the variants.
    pub shards: Vec<ShardEntry>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_no_row(rows: &u64) -> bool {
    *rows == 0
}

/// What was asked of the model in an earlier generation, and in those after it until the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// The model that was asked so: its place among those of this plan.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub model: u32,
    /// The first generation that had it.
    pub since: u32,
    /// What it was.
    pub setting: Setting,
    /// What its answers count as answers to, where a change was accepted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_as: Option<Setting>,
}

/// What became of the rows of two generations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Rows that keep their answer.
    pub kept: u64,
    /// Rows whose question is another now.
    pub changed: u64,
    /// Rows that had failed, or were not done.
    pub unanswered: u64,
    /// Rows that are new.
    pub new: u64,
    /// Rows that are gone.
    pub gone: u64,
    /// Calls that the records tell of that were kept.
    #[serde(default)]
    pub calls: u64,
    /// Calls of earlier generations that a crash took, and that were made again.
    #[serde(default)]
    pub repeated: u64,
    /// What calls of earlier generations cost whose records were not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Spending>,
}

/// Which rows are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Rows up to this one are not.
    pub after: u64,
    /// Rows behind this one are not.
    pub until: u64,
    /// With a sample: the seed, and the highest lot that is drawn. See [`Chosen::lot`].
    pub sample: Option<(u64, u64)>,
}

/// A run of rows worked by one worker at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Where it begins in the input, in bytes.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// The blake3 hash of its bytes, as hex.
    pub blake3: String,
    /// The number of its first row, from 1; where there are several inputs, among the rows of all.
    pub first_row: u64,
    /// The line of the input in which it begins, from 1.
    pub first_line: u64,
    /// Its rows.
    pub rows: u64,
    /// How many of them are to have an outcome of their own.
    pub wanted: u64,
    /// The blake3 hash of its `duplicates` file, where it has one: it stands in the directory of the
    /// first shard of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<String>,
    /// The variant of the job that its rows are asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variant: u32,
    /// Its `twins` file, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twins: Option<Twinned>,
    /// Which of the inputs it is of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub source: u32,
    /// The rows of the inputs before that one.
    #[serde(default, skip_serializing_if = "is_no_row")]
    pub rows_before: u64,
}

/// What a shard has to do with rows that ask what another row asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twinned {
    /// Its rows that are not called, but take the outcome of another row, here or elsewhere.
    pub rows: u64,
    /// The rows, here or elsewhere, that take the outcome of one of its own.
    pub served: u64,
    /// The blake3 hash of the file, as hex.
    pub blake3: String,
}

impl ShardEntry {
    /// So many rows that are all to have an outcome, behind nothing else.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of_rows(first_row: u64, rows: u64) -> Self {
        Self {
            offset: 0,
            bytes: 100,
            blake3: String::new(),
            first_row,
            first_line: 1,
            rows,
            wanted: rows,
            duplicates: None,
            variant: 0,
            twins: None,
            source: 0,
            rows_before: 0,
        }
    }

    /// Its rows that take the outcome of another row.
    #[must_use]
    pub fn twin_rows(&self) -> u64 {
        self.twins.as_ref().map_or(0, |twins| twins.rows)
    }

    /// The rows that take the outcome of one of its own.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.twins.as_ref().map_or(0, |twins| twins.served)
    }
}

impl Chosen {
    /// All rows.
    #[must_use]
    pub fn all() -> Self {
        Self { after: 0, until: u64::MAX, sample: None }
    }

    /// Whether a row is asked about.
    #[must_use]
    pub fn contains(&self, row: u64) -> bool {
        row > self.after
            && row <= self.until
            && self.sample.is_none_or(|(seed, highest)| Self::lot(seed, row) <= highest)
    }

    /// A row's lot: the rows with the lowest lots are the sample. Different rows have different
    /// lots, because each step (of splitmix64) can be undone.
    #[must_use]
    pub fn lot(seed: u64, row: u64) -> u64 {
        let mut lot = row.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        lot = lot.wrapping_add(0x9e37_79b9_7f4a_7c15);
        lot = (lot ^ (lot >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        lot = (lot ^ (lot >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        lot ^ (lot >> 31)
    }
}

impl Manifest {
    /// The shards in which rows are wanted, by number.
    pub fn open_shards(&self) -> impl Iterator<Item = (u32, &ShardEntry)> {
        (0_u32..).zip(&self.shards).filter(|(_, shard)| shard.wanted > 0)
    }

    /// The ranges that the input is cut into, each by the entry of its first shard and that shard's
    /// number.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, &ShardEntry)> {
        (0_u32..).zip(&self.shards).step_by(self.job.variants())
    }

    /// The shards of the range that a row is in, and the number of the first.
    #[must_use]
    pub fn shards_with(&self, row: u64) -> usize {
        // Those of one range come together before the row, or behind it.
        self.shards.partition_point(|shard| shard.first_row + shard.rows <= row)
    }

    /// Where a model of the job was when the plan was made.
    #[must_use]
    pub fn route(&self, model: usize) -> NotedRoute {
        match model.checked_sub(1) {
            Some(other) => self.routes.get(other).cloned().unwrap_or_default(),
            None => NotedRoute {
                base_url: self.base_url.clone(),
                provider: self.provider.clone(),
                transport: self.transport,
            },
        }
    }

    /// The shards of which outputs have lines, by number: those in which rows are wanted, and those
    /// whose rows all take the outcomes of others.
    pub fn published_shards(&self) -> impl Iterator<Item = (u32, &ShardEntry)> {
        (0_u32..).zip(&self.shards).filter(|(_, shard)| shard.wanted + shard.twin_rows() > 0)
    }

    /// Rows that take the outcome of another row.
    #[must_use]
    pub fn twins(&self) -> u64 {
        self.shards.iter().map(ShardEntry::twin_rows).sum()
    }

    /// Rows that are to be in the outputs: those with an outcome of their own and their twins.
    #[must_use]
    pub fn answered_for(&self) -> u64 {
        self.wanted() + self.twins()
    }

    /// Outcomes that are wanted and are no other row's: of every row that is asked about, one for each
    /// variant of the job.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.wanted))
    }

    /// Calls of this generation that a crash took are its own journals'; these are of earlier ones.
    #[must_use]
    pub fn repeated_before(&self) -> u64 {
        self.carried.map_or(0, |carried| carried.repeated)
    }

    /// What was spent in earlier generations on calls whose records were not kept.
    #[must_use]
    pub fn replaced_cost(&self) -> Option<Spending> {
        self.carried?.replaced
    }

    /// What a model of the job was asked in a generation.
    #[must_use]
    pub fn setting_of(&self, generation: u32, model: usize) -> Option<Setting> {
        if generation == self.generation {
            return Some(self.job.setting(model));
        }
        self.past_of(generation, model).map(|past| past.setting.clone())
    }

    /// What a model's answers of a generation are answers to: what was asked, and what they count as
    /// since a change was accepted.
    #[must_use]
    pub fn answers_to(&self, generation: u32, model: usize) -> Vec<Setting> {
        if generation == self.generation {
            return vec![self.job.setting(model)];
        }
        let past = self.past_of(generation, model);
        past.into_iter()
            .flat_map(|past| [Some(past.setting.clone()), past.accepted_as.clone()])
            .flatten()
            .collect()
    }

    fn past_of(&self, generation: u32, model: usize) -> Option<&Past> {
        let mut past = self.past_of_model(model).rev();
        past.find(|past| past.since <= generation).filter(|_| generation < self.generation)
    }

    fn past_of_model(&self, model: usize) -> impl DoubleEndedIterator<Item = &Past> {
        self.past.iter().filter(move |past| past.model as usize == model)
    }

    /// The past settings of the generation after this one, which has the job `next`. `accept` makes of
    /// what answers counted as answers to until now, and of what is asked now, what they count as from
    /// then on.
    #[must_use]
    pub fn past_of_next(
        &self,
        next: &JobSpec,
        accept: impl Fn(&Setting, &Setting) -> Setting,
    ) -> Vec<Past> {
        let mut all = Vec::new();
        for (model, old) in self.job.models_in(next).into_iter().enumerate() {
            let Some(old) = old else { continue };
            let (now, setting) = (next.setting(model), self.job.setting(old));
            let model = u32::try_from(model).unwrap_or(u32::MAX);
            let mut past: Vec<_> = self.past_of_model(old).cloned().collect();
            past.push(Past { model, since: self.generation, setting, accepted_as: None });
            for it in &mut past {
                it.model = model;
                // What was asked comes first: a change may be taken back.
                let before = it.accepted_as.as_ref().filter(|_| accept(&it.setting, &now) != now);
                let accepted = accept(before.unwrap_or(&it.setting), &now);
                it.accepted_as = Some(accepted).filter(|accepted| *accepted != it.setting);
            }
            past.dedup_by(|later, earlier| {
                later.setting == earlier.setting && later.accepted_as == earlier.accepted_as
            });
            all.append(&mut past);
        }
        all
    }

    /// A manifest may have been edited or damaged: nothing in it is believed before this.
    fn validate(&self) -> Result<(), String> {
        let variants = self.job.model_count().checked_mul(self.job.repeat as usize);
        let variants = variants.filter(|it| *it > 0).ok_or("it has no variant")?;
        if self.job.model_count() + self.job.names.len() != self.routes.len() + 1 {
            return Err("it does not say where its models are".to_owned());
        }
        let is_name = |name: &str| name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let plans = self.plans();
        let are_all = plans.len() == self.generation as usize;
        if !is_name(&self.run) || !plans.iter().all(|plan| is_name(plan)) || !are_all {
            return Err("it does not say which plan it is".to_owned());
        }
        let mut walk = Walk::new(&self.sources).ok_or("its inputs cannot be told apart")?;
        for (number, shard) in self.shards.iter().enumerate() {
            let variant = number % variants;
            if shard.variant as usize != variant {
                return Err(format!("shard {number} is not of the variant {variant}"));
            }
            if variant > 0 {
                let first = &self.shards[number - variant];
                if (ShardEntry { variant: 0, ..shard.clone() }) != *first {
                    return Err(format!("shard {number} is not of the range of its variants"));
                }
                continue;
            }
            if !walk.enter(shard) {
                return Err(format!("shard {number} is not of the input that comes next"));
            }
            if shard.offset != walk.offset || shard.first_row != walk.row {
                return Err(format!("shard {number} does not begin where the one before it ends"));
            }
            let told = shard.wanted.checked_add(shard.twin_rows());
            if told.is_none_or(|told| told > shard.rows) || shard.rows > shard.bytes {
                return Err(format!("shard {number} has impossible counts"));
            }
            walk.offset = shard.offset.checked_add(shard.bytes).ok_or("offsets overflow")?;
            walk.row = shard.first_row.checked_add(shard.rows).ok_or("row numbers overflow")?;
        }
        let is_whole = self.shards.len().is_multiple_of(variants);
        if !walk.ends() || !is_whole {
            return Err("the shards do not cover the input".to_owned());
        }
        let models = self.job.pool.len().max(1);
        let members = self.pool.iter().flat_map(|pool| &pool.members);
        if members.into_iter().any(|member| member.model >= models) {
            return Err("a member of the pool has a model that the job does not have".to_owned());
        }
        // No sum overflows: each shard's numbers are at most its rows, and those are the input's.
        let answered_for: u64 =
            self.ranges().map(|(_, shard)| shard.wanted + shard.twin_rows()).sum();
        if self.selected.checked_sub(self.skipped) != Some(answered_for) {
            return Err("the shards' rows do not add up".to_owned());
        }
        let served = self.shards.iter().try_fold(0_u64, |sum, it| sum.checked_add(it.served()));
        if served != Some(self.twins()) {
            return Err("the rows that take others' outcomes do not add up".to_owned());
        }
        Ok(())
    }
}

/// The file: the manifest with a hash of its text in front.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    blake3: String,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

/// Reads the manifest; nothing where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Manifest>, Error> {
    disk::read_if_there(path)?.map(|bytes| parse(path, &bytes)).transpose()
}

/// Reads what stands in the file at `path`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let sealed: Sealed<'_> =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let text = sealed.manifest.get();
    if blake3::hash(text.as_bytes()).to_hex().as_str() != sealed.blake3 {
        return Err(damaged("its hash does not match".to_owned()));
    }
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } =
        serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(Error::Newer { path: path.to_owned(), found: format });
    }
    let manifest: Manifest =
        serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    manifest.validate().map_err(damaged)?;
    Ok(manifest)
}

pub(super) fn write(path: &Path, manifest: &Manifest) -> Result<(), Error> {
    disk::replace(path, &spell(path, manifest)?)
}

/// What is to stand in the file at `path`.
pub(super) fn spell(path: &Path, manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let broken = |source: serde_json::Error| Error::Io {
        what: "write",
        path: path.to_owned(),
        source: source.into(),
    };
    let text = RawValue::from_string(serde_json::to_string_pretty(manifest).map_err(broken)?)
        .map_err(broken)?;
    let blake3 = blake3::hash(text.get().as_bytes()).to_hex().to_string();
    let mut bytes = serde_json::to_vec(&Sealed { blake3, manifest: &text }).map_err(broken)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::job::{
        Dialect, IdFrom, OnDuplicate, OnMissingField, OtherModel, Parameters, Protocol, Selection,
    };

    pub(crate) fn manifest() -> Manifest {
        let shard = |offset, first_row| ShardEntry {
            offset,
            blake3: "00".into(),
            first_line: first_row,
            ..ShardEntry::of_rows(first_row, 10)
        };
        let mut parameters = Parameters::new();
        parameters.insert("top_p".into(), RawValue::from_string("0.50".into()).unwrap());
        Manifest {
            format: FORMAT,
            rowmill: "0".into(),
            run: "0".repeat(32),
            plan: "1".repeat(32),
            earlier: Vec::new(),
            created: "now".into(),
            generation: 1,
            past: Vec::new(),
            carried: None,
            published: 0,
            job: JobSpec {
                dialect: Dialect::Rows,
                skip_bad_lines: false,
                model: "m".into(),
                protocol: Protocol::Chat,
                pool: Vec::new(),
                names: Vec::new(),
                prompt: "p".into(),
                instruction: None,
                parameters,
                schema: None,
                id_field: None,
                id_from: IdFrom::RowNumber,
                selection: Selection::default(),
                attachment_field: None,
                max_attachment_bytes: crate::job::MAX_ATTACHMENT_BYTES,
                on_duplicate: OnDuplicate::Error,
                on_missing_field: OnMissingField::RowError,
                max_row_bytes: 1,
                include_input: false,
                named: None,
                others: Vec::new(),
                repeat: 1,
                dedupe: crate::job::Dedupe::Auto,
            },
            base_url: None,
            provider: None,
            transport: Transport::Http,
            routes: Vec::new(),
            pool: None,
            own_models: OwnModels::default(),
            replaces: Vec::new(),
            sources: vec![SourcePrint {
                name: None,
                path: None,
                url: None,
                format: "jsonl".into(),
                columns: None,
                separator: None,
                bytes: 203,
                blake3: "00".into(),
                rows: 20,
                data_offset: 3,
            }],
            chosen: Chosen::all(),
            selected: 20,
            skipped: 0,
            shards: vec![shard(3, 1), shard(103, 11)],
        }
    }

    /// The plan of three models, the first of which is asked as before, each asked twice.
    fn varied() -> Manifest {
        let mut manifest = manifest();
        manifest.job.repeat = 2;
        manifest.job.named = Some("m".into());
        for named in ["x", "y"] {
            let (model, parameters) = (named.to_owned(), Parameters::new());
            let other =
                OtherModel { named: model.clone(), model, protocol: Protocol::Chat, parameters };
            manifest.job.others.push(other);
            manifest.routes.push(NotedRoute::default());
        }
        let of = |shard: &ShardEntry| {
            let shard = shard.clone();
            (0..6).map(move |variant| ShardEntry { variant, ..shard.clone() })
        };
        manifest.shards = manifest.shards.iter().flat_map(of).collect();
        manifest
    }

    #[test]
    fn a_plan_with_one_variant_says_nothing_of_variants() {
        let text = serde_json::to_string(&manifest()).unwrap();
        for word in ["variant", "routes", "others", "repeat", "named"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn each_range_has_a_shard_for_each_variant() {
        let good = varied();
        assert_eq!(good.validate(), Ok(()));
        assert_eq!((good.wanted(), good.shards.len()), (120, 12));
        let ranges: Vec<_> = good.ranges().map(|(number, it)| (number, it.first_row)).collect();
        assert_eq!(ranges, [(0, 1), (6, 11)]);
        assert_eq!([1, 10, 11, 20].map(|row| good.shards_with(row)), [0, 0, 6, 6]);
        let spoils: [fn(&mut Manifest); 6] = [
            |it| it.shards.swap(1, 2),
            |it| it.shards[3].wanted = 9,
            |it| it.shards[3].blake3 = "11".into(),
            |it| drop(it.shards.pop()),
            |it| drop(it.routes.pop()),
            |it| it.job.repeat = 0,
        ];
        for (number, spoil) in spoils.iter().enumerate() {
            let mut bad = varied();
            spoil(&mut bad);
            assert!(bad.validate().is_err(), "spoil {number}");
        }
    }

    #[test]
    fn the_past_goes_with_the_models() {
        let old = varied();
        let mut next = old.clone();
        (next.generation, next.job.others) = (2, vec![old.job.others[1].clone()]);
        next.past = old.past_of_next(&next.job, |then, _| then.clone());
        let asked = |manifest: &Manifest, generation, model| {
            manifest.setting_of(generation, model).map(|setting| setting.model)
        };
        assert_eq!(asked(&next, 1, 1).as_deref(), Some("y"));
        assert_eq!(asked(&next, 2, 1).as_deref(), Some("y"));
        assert_eq!(asked(&next, 1, 2), None);
        assert_eq!(next.answers_to(1, 0), [old.job.setting(0)]);
        let mut third = next.clone();
        (third.generation, third.job.others) = (3, vec![old.job.others[0].clone()]);
        third.job.others.push(old.job.others[1].clone());
        third.past = next.past_of_next(&third.job, |then, _| then.clone());
        assert_eq!(asked(&third, 1, 1), None, "x is asked anew");
        assert_eq!(asked(&third, 1, 2).as_deref(), Some("y"));
    }

    #[test]
    fn comes_back_as_it_was_written_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        assert!(read(&path).unwrap().is_none());
        write(&path, &manifest()).unwrap();
        let read_back = read(&path).unwrap().unwrap();
        assert_eq!(read_back.shards, manifest().shards);
        assert_eq!(read_back.job.parameters["top_p"].get(), "0.50");

        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() - 1 {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(read(&path), Err(Error::Damaged { .. })), "cut at {cut}");
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(read(&path).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_before_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        let newer = Manifest { format: FORMAT + 1, ..manifest() };
        write(&path, &newer).unwrap();
        assert!(matches!(read(&path), Err(Error::Newer { found, .. }) if found == FORMAT + 1));
    }

    #[test]
    fn shards_must_tile_the_input() {
        type Change = fn(&mut Manifest);
        let changes: [Change; 7] = [
            |m| m.shards[1].offset = 104,
            |m| m.shards[1].first_row = 12,
            |m| m.shards[0].rows = 9,
            |m| m.shards[1].bytes = u64::MAX,
            |m| m.shards[1].wanted = 11,
            |m| m.sources[0].bytes = 204,
            |m| m.skipped = 1,
        ];
        assert_eq!(manifest().validate(), Ok(()));
        for (number, change) in changes.iter().enumerate() {
            let mut changed = manifest();
            change(&mut changed);
            assert!(changed.validate().is_err(), "change {number}");
        }
    }

    #[test]
    fn several_inputs_follow_one_another() {
        let mut manifest = manifest();
        let one = serde_json::to_string(&manifest).unwrap();
        for word in ["name", "rows_before", "\"source\":["] {
            assert!(!one.contains(word), "{word}: {one}");
        }
        let print = |name: &str, bytes, rows| SourcePrint {
            name: Some(name.to_owned()),
            bytes,
            rows,
            ..manifest.source().clone()
        };
        manifest.sources = vec![print("a", 103, 10), print("empty", 3, 0), print("b", 103, 10)];
        (manifest.shards[1].offset, manifest.shards[1].source) = (3, 2);
        manifest.shards[1].rows_before = 10;
        assert_eq!(manifest.validate(), Ok(()));
        assert_eq!((manifest.rows(), manifest.own_row(10), manifest.own_row(11)), (20, 10, 1));
        let text = serde_json::to_string(&manifest).unwrap();
        let again: Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (again.sources, again.shards),
            (manifest.sources.clone(), manifest.shards.clone())
        );
        type Change = fn(&mut Manifest);
        let changes: [Change; 8] = [
            |m| m.sources[1].rows = 1,
            |m| m.sources[0].bytes = 104,
            |m| m.shards[1].source = 1,
            |m| m.shards[1].source = 3,
            |m| m.shards[1].rows_before = 9,
            |m| m.sources[2].name = Some("a".into()),
            |m| m.sources[2].name = None,
            |m| m.sources[2].name = Some("../b".into()),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = manifest.clone();
            change(&mut changed);
            assert!(changed.validate().is_err(), "change {number}");
        }
        manifest.sources.clear();
        assert!(manifest.validate().is_err());
    }

    #[test]
    fn lots_differ_and_seeds_matter() {
        let lots: std::collections::HashSet<_> =
            (0..10_000).map(|row| Chosen::lot(7, row)).collect();
        assert_eq!(lots.len(), 10_000);
        assert_ne!(Chosen::lot(7, 1), Chosen::lot(8, 1));
        let half = Chosen { after: 0, until: u64::MAX, sample: Some((1, u64::MAX / 2)) };
        let count = (1..=10_000).filter(|row| half.contains(*row)).count();
        assert!((4_500..5_500).contains(&count), "{count}");
    }
}
