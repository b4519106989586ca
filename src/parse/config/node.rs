//! YAML text as a tree of numbered nodes. Keeps what a map would hide (repeated keys, keys that
//! are not text, tags), and bounds what aliases may expand to. Knows nothing of our keys.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// What one tree may take, in bytes: its nodes and the text in them.
///
/// `yaml_serde` bounds the number of aliases it follows, not what they expand to: a list of 400
/// aliases to a list of 400 is already 160,000 nodes. 8 MiB is far above any configuration.
const TREE_LIMIT: usize = 8 << 20;

/// About what one node takes, itself and its share of its parent's vector.
const NODE_COST: usize = 64;

/// One value of the document, numbered in the order in which it is read: 0 is the document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct YamlNode {
    pub(super) number: usize,
    pub(super) yaml: Yaml,
}

/// YAML's kinds, as the core schema of YAML 1.2 resolves them: `off` and `1e3e` are text, `0x1e3e`
/// is an integer, `1e3` a float.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    /// What does not fit is a float, as `yaml_serde` does with integers of more than 128 bits.
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<YamlNode>),
    /// In the order of the file; a key may come twice.
    Mapping(Vec<(YamlNode, YamlNode)>),
    /// A tag such as `!secret`; what it is on does not matter to us.
    Tagged(String),
}

/// Why a text is no tree.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Counted from 1; absent where the YAML parser does not know.
    pub(super) line: Option<usize>,
    /// One line, with the column where it is known.
    pub(super) message: String,
}

/// The position of a node and how it is spelt.
pub(super) struct Position {
    /// Counted from 1; that of the anchor for a node that came by an alias.
    pub(super) line: usize,
    /// The scalar's text before YAML gave it a type.
    pub(super) raw: Option<String>,
}

/// Reads one document; an empty one is `Null`.
pub(super) fn parse_tree(text: &str) -> Result<YamlNode, SyntaxError> {
    (&Walk::default())
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| syntax_error(text, &error))
}

/// Where node `number` of this text is.
///
/// The YAML parser reports the position of errors only. So the text is read again by the same walk,
/// which fails on purpose at that node: exact in every style of YAML, at the price of a parse.
pub(super) fn find_position(text: &str, number: usize) -> Option<Position> {
    let walk = Walk { stop_at: Some(number), ..Walk::default() };
    let error = (&walk).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    Some(Position { line: line_of(text, error.location()?.index()), raw: walk.raw.into_inner() })
}

/// The line of a character as editors count: libyaml also breaks lines at U+0085, U+2028 and
/// U+2029, and sees one more line at the end of the file.
fn line_of(text: &str, character: usize) -> usize {
    let before = text.chars().take(character);
    let line = before.filter(|character| *character == '\n').count() + 1;
    line.min(text.lines().count()).max(1)
}

fn syntax_error(text: &str, error: &serde_yaml::Error) -> SyntaxError {
    let full = error.to_string();
    // An error of the character reader and one about the document as a whole carry no mark, which
    // reads as the first character of the file.
    let place = error.location().filter(|place| (place.line(), place.column()) != (1, 1));
    let Some(place) = place else {
        return SyntaxError {
            line: control_character_line(text, &full),
            message: format!("not readable as YAML: {}", in_our_words(&full)),
        };
    };
    let theirs = format!(" at line {} column {}", place.line(), place.column());
    let ours = if place.index() >= text.chars().count() {
        " at the end of the file".to_owned()
    } else {
        format!(" at column {}", place.column())
    };
    let line = line_of(text, place.index());
    SyntaxError {
        line: Some(line),
        message: format!(
            "not readable as YAML: {}{}",
            in_our_words(&full.replacen(&theirs, &ours, 1)),
            tab_hint(text, line)
        ),
    }
}

/// `yaml_serde` addresses programmers where it does not pass on the message of libyaml.
fn in_our_words(message: &str) -> String {
    let words = [
        (
            "deserializing from YAML containing more than one document is not supported",
            "more than one document; keep one and remove the `---` after it",
        ),
        ("recursion limit exceeded", "nested more than 128 levels deep"),
        ("repetition limit exceeded", "its aliases repeat too often; write the values out"),
    ];
    words.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replacen(theirs, ours, 1))
}

fn control_character_line(text: &str, message: &str) -> Option<usize> {
    if !message.starts_with("control characters are not allowed") {
        return None;
    }
    let refused = |character: char| {
        character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{85}')
    };
    Some(text.lines().position(|line| line.contains(refused))? + 1)
}

fn tab_hint(text: &str, line: usize) -> &'static str {
    let line = text.lines().nth(line - 1).unwrap_or_default();
    if line.trim_start_matches(' ').starts_with('\t') {
        "; YAML is indented with spaces, not with tabs"
    } else {
        ""
    }
}

/// One pass over a document: numbers nodes, counts what they take, stops where asked to.
#[derive(Default)]
struct Walk {
    next: Cell<usize>,
    taken: Cell<usize>,
    stop_at: Option<usize>,
    raw: RefCell<Option<String>>,
}

impl Walk {
    fn enter(&self) -> usize {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let taken = self.taken.get().saturating_add(bytes);
        self.taken.set(taken);
        if taken > TREE_LIMIT {
            return Err(E::custom(format_args!(
                "more than {} MiB in memory with its aliases expanded",
                TREE_LIMIT >> 20
            )));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &Walk {
    type Value = YamlNode;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<YamlNode, D::Error> {
        self.spend(NODE_COST)?;
        let number = self.enter();
        if self.stop_at == Some(number) {
            // As text, so that a scalar shows its spelling; a list or mapping fails just as well.
            return deserializer.deserialize_str(Stop(self));
        }
        let yaml = deserializer.deserialize_any(YamlVisitor(self))?;
        Ok(YamlNode { number, yaml })
    }
}

/// Fails at whatever it meets.
struct Stop<'a>(&'a Walk);

impl Visitor<'_> for Stop<'_> {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<YamlNode, E> {
        self.0.raw.replace(Some(text.to_owned()));
        Err(E::custom("stopped here"))
    }
}

struct YamlVisitor<'a>(&'a Walk);

impl<'de> Visitor<'de> for YamlVisitor<'_> {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Yaml, E> {
        Ok(Yaml::Integer(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no configured number is that large; only its kind is used"
    )]
    fn visit_u128<E>(self, value: u128) -> Result<Yaml, E> {
        Ok(i128::try_from(value).map_or(Yaml::Float(value as f64), Yaml::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Float(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Yaml, E> {
        self.0.spend(text.len())?;
        Ok(Yaml::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.0)? {
            list.push(item);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry_seed(self.0, self.0)? {
            mapping.push(entry);
        }
        Ok(Yaml::Mapping(mapping))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Yaml, A::Error> {
        let (tag, value) = tagged.variant::<String>()?;
        self.0.spend(tag.len())?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Yaml::Tagged(tag))
    }
}
