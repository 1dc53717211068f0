//! The document that the environment variables stand for, when there is no file.

use super::super::Environment;
use super::super::document::Node;
use super::super::environment::{APP_ID, AUDIENCE, BASE_URL, ISSUER};
use super::super::place::Report;

/// Notes variables that lack another; the document is then incomplete.
pub(super) fn document(environment: &Environment, report: &Report) -> Node {
    let Environment { app_id, base_url, issuer, audience, exports_spans: _, has_service_name: _ } =
        environment.clone();
    if app_id.is_none() && issuer.is_none() {
        let accepted = "--config FILE, PASSAGE_APP_ID, or PASSAGE_AUTHZ_ISSUER with PASSAGE_AUTHZ_AUDIENCE";
        report.add(None, "", "there is no configuration".to_owned(), accepted);
    }
    let issuers = [passage_app(app_id, base_url, report), openid_issuer(issuer, audience, report)];
    Node::map(vec![("issuers", Node::list(issuers.into_iter().flatten().collect()))])
}

fn passage_app(app_id: Option<String>, base_url: Option<String>, report: &Report) -> Option<Node> {
    let Some(app_id) = app_id else {
        if base_url.is_some() {
            report.add(None, BASE_URL, "is set without an app".to_owned(), "PASSAGE_APP_ID beside it");
        }
        return None;
    };
    let mut app = vec![("app_id", Node::text_of_variable(APP_ID, app_id))];
    app.extend(base_url.map(|url| ("base_url", Node::text_of_variable(BASE_URL, url))));
    let name = Node::text_of_variable(APP_ID, "passage".to_owned());
    Some(Node::map(vec![("name", name), ("passage", Node::map(app))]))
}

fn openid_issuer(issuer: Option<String>, audience: Option<String>, report: &Report) -> Option<Node> {
    match (issuer, audience) {
        (Some(issuer), Some(audience)) => Some(Node::map(vec![
            ("name", Node::text_of_variable(ISSUER, "oidc".to_owned())),
            ("issuer", Node::text_of_variable(ISSUER, issuer)),
            ("audiences", Node::list(vec![Node::text_of_variable(AUDIENCE, audience)])),
            ("keys", Node::map(vec![("discovery", Node::true_of_variable(ISSUER))])),
        ])),
        (Some(_), None) => {
            let accepted = "PASSAGE_AUTHZ_AUDIENCE beside it";
            report.add(None, ISSUER, "is set without an audience".to_owned(), accepted);
            None
        }
        (None, Some(_)) => {
            let accepted = "PASSAGE_AUTHZ_ISSUER beside it";
            report.add(None, AUDIENCE, "is set without an issuer".to_owned(), accepted);
            None
        }
        (None, None) => None,
    }
}
