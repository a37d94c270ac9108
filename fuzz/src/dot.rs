//! A parser of the part of the DOT language that a listing uses. It is strict enough to detect text
//! that Graphviz refuses.

/// The parsed graph, in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ParsedGraph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
}

/// A node: a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) colour: String,
}

/// An edge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) style: String,
}

/// One token of the text. Quoted strings are unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Quoted(String),
    Word(String),
    Sign(char),
    Arrow,
}

/// Parses the text, or returns the first error.
pub(crate) fn parse(text: &str) -> Result<ParsedGraph, String> {
    if text.contains('\0') {
        return Err("Graphviz ignores the text after a NUL".to_string());
    }
    let mut tokens = tokens(text)?.into_iter().peekable();
    let mut next = || tokens.next();
    expect(next(), &Token::Word("digraph".to_string()))?;
    word(next())?;
    expect(next(), &Token::Sign('{'))?;
    let mut graph = ParsedGraph::default();
    loop {
        match next() {
            Some(Token::Sign('}')) => break,
            // Defaults for all nodes.
            Some(Token::Word(node)) if node == "node" => {
                attributes(&mut next)?;
            }
            Some(Token::Quoted(name)) => match next() {
                Some(Token::Arrow) => {
                    let to = quoted(next())?;
                    expect(next(), &Token::Sign('['))?;
                    let style = attribute(attributes_after_bracket(&mut next)?, "style")?;
                    graph.edges.push(Edge { from: name, to, style });
                }
                Some(Token::Sign('[')) => {
                    let attributes = attributes_after_bracket(&mut next)?;
                    let label = attribute(attributes.clone(), "label")?;
                    let colour = attribute(attributes, "fillcolor")?;
                    graph.nodes.push(Node { name, label, colour });
                }
                other => return Err(format!("{other:?} after {name:?}")),
            },
            other => return Err(format!("{other:?} in place of a statement")),
        }
    }
    match next() {
        None => Ok(graph),
        Some(token) => Err(format!("{token:?} after the end")),
    }
}

type Attributes = Vec<(String, String)>;

fn attributes(next: &mut impl FnMut() -> Option<Token>) -> Result<Attributes, String> {
    expect(next(), &Token::Sign('['))?;
    attributes_after_bracket(next)
}

fn attributes_after_bracket(
    next: &mut impl FnMut() -> Option<Token>,
) -> Result<Attributes, String> {
    let mut attributes = Vec::new();
    loop {
        let key = word(next())?;
        expect(next(), &Token::Sign('='))?;
        let value = match next() {
            Some(Token::Quoted(text) | Token::Word(text)) => text,
            other => return Err(format!("{other:?} in place of a value")),
        };
        attributes.push((key, value));
        match next() {
            Some(Token::Sign(',')) => {}
            Some(Token::Sign(']')) => break,
            other => return Err(format!("{other:?} after an attribute")),
        }
    }
    expect(next(), &Token::Sign(';'))?;
    Ok(attributes)
}

fn attribute(attributes: Attributes, key: &str) -> Result<String, String> {
    let mut found = attributes.into_iter().filter(|(name, _)| name == key);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(value),
        _ => Err(format!("{key} must occur exactly once")),
    }
}

fn expect(token: Option<Token>, expected: &Token) -> Result<(), String> {
    match token {
        Some(token) if token == *expected => Ok(()),
        other => Err(format!("{other:?} in place of {expected:?}")),
    }
}

fn word(token: Option<Token>) -> Result<String, String> {
    match token {
        Some(Token::Word(word)) => Ok(word),
        other => Err(format!("{other:?} in place of a word")),
    }
}

fn quoted(token: Option<Token>) -> Result<String, String> {
    match token {
        Some(Token::Quoted(text)) => Ok(text),
        other => Err(format!("{other:?} in place of a name")),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut rest) = (Vec::new(), text.chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\n' => {}
            '"' => tokens.push(Token::Quoted(unescaped(&mut rest)?)),
            '-' => match rest.next() {
                Some('>') => tokens.push(Token::Arrow),
                other => return Err(format!("{other:?} after a dash")),
            },
            '{' | '}' | '[' | ']' | '=' | ',' | ';' => tokens.push(Token::Sign(c)),
            'a'..='z' => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(char::is_ascii_lowercase) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
            other => return Err(format!("{other:?} outside quotes")),
        }
    }
    Ok(tokens)
}

/// The text up to the closing quote.
fn unescaped(rest: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('"') => return Ok(text),
            Some('\\') => match rest.next() {
                Some('n') => text.push('\n'),
                Some(c @ ('"' | '\\')) => text.push(c),
                // Graphviz has more escapes in labels, and would draw each as something else.
                other => return Err(format!("the escape {other:?}")),
            },
            Some('\n') => return Err("a line end in quotes".to_string()),
            Some(c) => text.push(c),
            None => return Err("a quoted string without an end".to_string()),
        }
    }
}
