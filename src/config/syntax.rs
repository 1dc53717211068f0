//! What the YAML reader cannot read, in the words of someone who writes a configuration.

/// The problem and what is accepted, for the reader's message about a document that does not parse.
pub(super) fn fault(message: String) -> (String, &'static str) {
    let known: [(&str, &str, &'static str); 3] = [
        ("multiple YAML documents", "a second document begins here", "one document: leave out the line ---"),
        (
            "unknown anchor",
            "a text that begins with * is an alias in YAML",
            "such a text in quotes: \"*.example.com\", \"/*\"",
        ),
        ("tabs disallowed", "a tab indents this line", "spaces"),
    ];
    let found = known.into_iter().find(|(part, ..)| message.contains(part));
    found.map_or((message, "one YAML document with a map at its top"), |(_, problem, accepted)| {
        (problem.to_owned(), accepted)
    })
}
