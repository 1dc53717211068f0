//! The servers of the comparison: (a) tonic with its defaults and the full Envoy API, which answers OK with one header;
//! (b) the same after `jsonwebtoken::decode`.

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tonic::{Request, Response, Status};

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

struct Stock(Option<(DecodingKey, Validation)>);

#[tonic::async_trait]
impl Authorization for Stock {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let user = match &self.0 {
            None => "user-1".to_owned(),
            Some((key, validation)) => {
                let request = request.into_inner();
                let http = request.attributes.and_then(|it| it.request).and_then(|it| it.http);
                let headers = http.ok_or_else(|| Status::invalid_argument("no request"))?.headers;
                let token = headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
                let token = token.ok_or_else(|| Status::unauthenticated("no token"))?;
                let decoded = jsonwebtoken::decode::<Claims>(token, key, validation);
                decoded.map_err(|error| Status::unauthenticated(error.to_string()))?.claims.sub
            }
        };
        let header =
            HeaderValue { key: "x-passage-user-id".to_owned(), value: user, ..HeaderValue::default() };
        let ok = OkHttpResponse {
            headers: vec![HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }],
            ..OkHttpResponse::default()
        };
        Ok(Response::new(CheckResponse {
            status: Some(RpcStatus::default()),
            http_response: Some(HttpResponse::OkResponse(ok)),
            ..CheckResponse::default()
        }))
    }
}

/// Serves until it is killed; prints its address on stdout. With `jwk` it verifies.
#[tokio::main]
#[expect(clippy::print_stdout, reason = "how the parent learns the port")]
pub(crate) async fn serve(jwk: Option<String>) {
    let verifying = jwk.map(|jwk| {
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_str(&jwk).expect("a JWK");
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&["app1"]);
        validation.validate_aud = false;
        (DecodingKey::from_jwk(&jwk).expect("an RSA key"), validation)
    });
    // A free port, chosen by the system: tonic's `serve` needs an address.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    println!("{address}");
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(Stock(verifying)));
    server.serve(address).await.expect("the stock server serves");
}
