//! The table of a benchmark, as it is printed and as it is kept.

/// What one benchmark measured, line by line.
pub struct Table {
    title: String,
    lines: Vec<Line>,
}

enum Line {
    Note(String),
    Ratio { what: String, ours: String, theirs: String, ratio: f64, aim: Aim },
}

/// What a ratio should be.
#[derive(Clone, Copy)]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// It is shown for what it says.
    None,
}

impl Table {
    pub fn new(name: &str, what: &str) -> Self {
        Self { title: format!("{name}: {what}"), lines: Vec::new() }
    }

    /// Says something that is not a ratio: what was left out, and why.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("  {text}");
        self.lines.push(Line::Note(text));
    }

    /// Adds a ratio of what rowmill came to and what stands beside it.
    pub fn ratio(
        &mut self,
        what: impl Into<String>,
        (ours, theirs): (impl Into<String>, impl Into<String>),
        ratio: f64,
        aim: Aim,
    ) {
        let (what, ours, theirs) = (what.into(), ours.into(), theirs.into());
        eprintln!("  {what}: {ours} | {theirs} | {ratio:.2}");
        self.lines.push(Line::Ratio { what, ours, theirs, ratio, aim });
    }

    pub fn print(&self) {
        println!("\n{}", self.title);
        println!("{:<44} {:>26} {:>30} {:>8}  aim", "", "rowmill", "beside it", "ratio");
        for line in &self.lines {
            match line {
                Line::Note(text) => println!("  ({text})"),
                Line::Ratio { what, ours, theirs, ratio, aim } => {
                    let aim = aim.show(*ratio);
                    println!("  {what:<42} {ours:>26} {theirs:>30} {ratio:>8.2}  {aim}");
                }
            }
        }
    }

    /// The same for a page.
    pub fn markdown(&self) -> String {
        let mut page = String::from(
            "| | rowmill | beside it | ratio | aim |\n| --- | --- | --- | --- | --- |\n",
        );
        for line in &self.lines {
            page += &match line {
                Line::Note(text) => format!("| {text} | | | | |\n"),
                Line::Ratio { what, ours, theirs, ratio, aim } => {
                    let (what, aim) = (what.trim(), aim.show(*ratio));
                    format!("| {what} | {ours} | {theirs} | {ratio:.2} | {aim} |\n")
                }
            };
        }
        page
    }
}

impl Aim {
    fn show(self, ratio: f64) -> String {
        let (text, is_met) = match self {
            Self::AtLeast(aim) => (format!("≥ {aim}"), ratio >= aim),
            Self::AtMost(aim) => (format!("≤ {aim}"), ratio <= aim),
            Self::None => return String::new(),
        };
        format!("{text} {}", if is_met { "met" } else { "MISSED" })
    }
}
