//! What lists of models say of a model besides its name: how many nodes serve it, what it takes in, what
//! it is for. No two vendors say it alike; what is not said is not guessed, but for names that tell what
//! a model is for.

use serde_json::{Map, Value};

use crate::job::{Kinds, Modality};

/// What a model is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Task {
    /// Answers in words, or nothing says otherwise.
    #[default]
    Chat,
    /// Vectors.
    Embeddings,
    /// Something that rowmill does not ask for: pictures, speech, ranks, verdicts.
    Other,
}

/// The number of nodes that serve a model now, as Dria's list and lists like it have it: a number, or
/// an object that counts them by their state, or a list of them.
pub(super) fn nodes(said: &Map<String, Value>) -> Option<u32> {
    const NAMES: [&str; 9] = [
        "available_nodes",
        "online_nodes",
        "active_nodes",
        "node_count",
        "nodeCount",
        "availableNodes",
        "num_nodes",
        "nodes",
        "replicas",
    ];
    let count = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::Array(all) => Some(all.len() as u64),
        Value::Object(states) => {
            let names = ["available", "online", "active", "count", "total"];
            names.iter().find_map(|name| states.get(*name)?.as_u64())
        }
        _ => None,
    };
    let found = NAMES.iter().find_map(|name| count(said.get(*name)?));
    found.map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// What a model takes in: `architecture.input_modalities` of OpenRouter, `input_modalities` and
/// `modalities.input` of others, `capabilities` as a list or as yes and no (Mistral), Dria's `type`.
pub(super) fn kinds(said: &Map<String, Value>) -> Option<Kinds> {
    let words = |value: &Value| -> Vec<String> {
        match value {
            Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Value::Object(all) => {
                let told = all.iter().filter(|(_, value)| **value == Value::Bool(true));
                told.map(|(name, _)| name.clone()).collect()
            }
            // `text+image->text`
            Value::String(text) => {
                let inputs = text.split("->").next().unwrap_or_default();
                inputs.split(['+', ',']).map(|word| word.trim().to_owned()).collect()
            }
            _ => Vec::new(),
        }
    };
    const PLACES: [&[&str]; 8] = [
        &["architecture", "input_modalities"],
        &["architecture", "modality"],
        &["input_modalities"],
        &["modalities", "input"],
        &["modalities"],
        &["modality"],
        &["capabilities"],
        &["type"],
    ];
    PLACES.iter().find_map(|path| {
        let (first, rest) = path.split_first()?;
        let value = rest.iter().try_fold(said.get(*first)?, |value, name| value.get(name))?;
        let found: Vec<_> = words(value).iter().filter_map(|word| modality(word)).collect();
        // Whatever else it takes in, it is asked in words.
        let with = |kinds: Kinds, modality: &Modality| kinds.with(*modality);
        (!found.is_empty()).then(|| found.iter().fold(Kinds::TEXT, with))
    })
}

fn modality(word: &str) -> Option<Modality> {
    Some(match word.to_ascii_lowercase().as_str() {
        "text" | "chat" | "completion" | "completion_chat" | "language" | "llm" => Modality::Text,
        "image" | "images" | "vision" | "vlm" | "multimodal" => Modality::Image,
        "audio" => Modality::Audio,
        "file" | "pdf" | "document" => Modality::Document,
        _ => return None,
    })
}

/// What a model is for: its `type` or `task`, else its name.
pub(super) fn task(id: &str, said: &Map<String, Value>) -> Task {
    let named = ["task", "type", "model_type"].iter().find_map(|name| said.get(*name)?.as_str());
    let named = named.unwrap_or_default().to_ascii_lowercase();
    let id = id.to_ascii_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| named.contains(word) || id.contains(word));
    if is(&["embed"]) {
        return Task::Embeddings;
    }
    // In a list's `type` pictures are what comes out; what goes in is `vision` there.
    let makes_pictures = ["image", "image-generation"].contains(&named.as_str());
    const OTHERS: [&str; 9] = [
        "rerank",
        "moderation",
        "whisper",
        "transcri",
        "tts",
        "dall-e",
        "stable-diffusion",
        "guardrail",
        "text-to-speech",
    ];
    if makes_pictures || is(&OTHERS) { Task::Other } else { Task::Chat }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn nodes_are_counted_however_they_are_told() {
        for (value, count) in [
            (json!({"nodes": 7}), Some(7)),
            (json!({"node_count": 3, "nodes": 7}), Some(3)),
            (json!({"nodes": {"online": 5, "total": 9}}), Some(5)),
            (json!({"nodes": ["a", "b"]}), Some(2)),
            (json!({"nodes": 0}), Some(0)),
            (json!({"nodes": "many"}), None),
            (json!({}), None),
        ] {
            assert_eq!(nodes(&said(value.clone())), count, "{value}");
        }
    }

    #[test]
    fn what_a_model_takes_in_is_told_in_many_ways() {
        for (value, names) in [
            (
                json!({"architecture": {"input_modalities": ["text", "image", "file"]}}),
                "text, image, document",
            ),
            (json!({"architecture": {"modality": "text+image->text"}}), "text, image"),
            (json!({"type": "vision"}), "text, image"),
            (json!({"type": "audio"}), "text, audio"),
            (json!({"type": "text"}), "text"),
            (
                json!({"capabilities": {"vision": true, "completion_chat": true, "audio": false}}),
                "text, image",
            ),
            (json!({"capabilities": ["completion", "vision"]}), "text, image"),
        ] {
            assert_eq!(kinds(&said(value.clone())).unwrap().to_string(), names, "{value}");
        }
        assert_eq!(kinds(&said(json!({"type": "model", "object": "model"}))), None);
    }

    #[test]
    fn what_is_not_asked_in_words_is_known_by_type_or_name() {
        let told = |id: &str| task(id, &Map::new());
        assert_eq!(told("Qwen/Qwen3-8B"), Task::Chat);
        assert_eq!(told("text-embedding-3-small"), Task::Embeddings);
        assert_eq!(told("whisper-1"), Task::Other);
        assert_eq!(task("m", &said(json!({"type": "embedding"}))), Task::Embeddings);
        assert_eq!(task("flux", &said(json!({"type": "image"}))), Task::Other);
        assert_eq!(task("m", &said(json!({"type": "vision"}))), Task::Chat);
    }
}
