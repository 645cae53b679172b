//! What answers look like in each protocol, whole and in events.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json, value::RawValue};

/// What is told of an answer besides its text.
pub const USAGE: (u64, u64) = (11, 7);

/// The body of an answer to a call at this path.
pub fn body(path: &str, text: &str) -> String {
    let (input, output) = USAGE;
    if path.ends_with("/responses") {
        response(text).to_string()
    } else if path.ends_with("/messages") {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "mock-model-1",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": input, "output_tokens": output},
        })
        .to_string()
    } else if path.ends_with("/embeddings") {
        // The text is the vector: its numbers are to stay as they are spelled.
        let vector = RawValue::from_string(text.to_owned()).expect("a vector is JSON");
        format!(
            "{{\"object\":\"list\",\"data\":[{{\"object\":\"embedding\",\"index\":0,\
             \"embedding\":{vector}}}],\"model\":\"mock-model-1\",\
             \"usage\":{{\"prompt_tokens\":{input},\"total_tokens\":{input}}}}}"
        )
    } else {
        super::completion(text)
    }
}

/// A response, whose id no other has.
fn response(text: &str) -> Value {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let id = format!("resp_{}", MADE.fetch_add(1, Ordering::Relaxed));
    let (input, output) = USAGE;
    json!({
        "id": id, "object": "response", "status": "completed", "error": null,
        "incomplete_details": null, "model": "mock-model-1",
        "output": [{"type": "message", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}]}],
        "usage": {"input_tokens": input, "output_tokens": output},
    })
}

/// The events of an answer to a call at this path; the last ends it.
pub fn events(path: &str, text: &str) -> Vec<Value> {
    let (input, output) = USAGE;
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let pieces = [&text[..middle], &text[middle..]];
    let mut events = Vec::new();
    if path.ends_with("/responses") {
        let response = response(text);
        let begun = json!({"id": response["id"], "status": "in_progress"});
        events.push(json!({"type": "response.created", "response": begun}));
        for piece in pieces {
            events.push(json!({"type": "response.output_text.delta", "delta": piece}));
        }
        events.push(json!({"type": "response.completed", "response": response}));
    } else if path.ends_with("/messages") {
        let usage = json!({"input_tokens": input, "output_tokens": 1});
        let message = json!({"model": "mock-model-1", "content": [], "usage": usage});
        events.push(json!({"type": "message_start", "message": message}));
        for piece in pieces {
            let delta = json!({"type": "text_delta", "text": piece});
            events.push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        }
        let (delta, usage) = (json!({"stop_reason": "end_turn"}), json!({"output_tokens": output}));
        events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
        events.push(json!({"type": "message_stop"}));
    } else {
        for piece in pieces {
            let choice = json!({"index": 0, "delta": {"content": piece}, "finish_reason": null});
            events.push(json!({"model": "mock-model-1", "choices": [choice], "usage": null}));
        }
        let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
        events.push(json!({"model": "mock-model-1", "choices": [choice]}));
        let usage = json!({"prompt_tokens": input, "completion_tokens": output});
        events.push(json!({"model": "mock-model-1", "choices": [], "usage": usage}));
        events.push(json!("[DONE]"));
    }
    events
}

/// An event as server-sent events have it.
pub fn framed(event: &Value) -> String {
    match event.as_str() {
        Some(text) => format!("data: {text}\n\n"),
        None => match event["type"].as_str() {
            Some(name) => format!("event: {name}\ndata: {event}\n\n"),
            None => format!("data: {event}\n\n"),
        },
    }
}
