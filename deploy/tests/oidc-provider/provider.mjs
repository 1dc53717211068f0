// An OpenID provider on loopback that sends logout tokens. Prints a JSON line for each event.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';

const { PORT, LOGOUT_URI } = process.env;
const audience = 'https://api.example.com';
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));
const kid = `key-${randomBytes(4).toString('hex')}`;
const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  jwks: { keys: [{ ...key, kid, use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [randomBytes(24).toString('hex')] },
  clients: [{
    client_id: 'shop',
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code'],
    response_types: ['code'],
    redirect_uris: ['http://127.0.0.1/cb'],
    backchannel_logout_uri: LOGOUT_URI,
    backchannel_logout_session_required: true,
  }],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  scopes: ['openid', 'api'],
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: 'api', audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256', kid } } }),
    },
  },
  // Access tokens name their session only if they are told to.
  extraTokenClaims: (context, token) => {
    const sid = token.sid ?? context.oidc.entities.AuthorizationCode?.sid;
    return token.kind === 'AccessToken' && sid ? { sid } : undefined;
  },
  // Without its guard against requests to loopback addresses, where the receiver is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
});
provider.on('backchannel.success', (_, client, sub, sid) => say('backchannel.success', { sub, sid }));
provider.on('backchannel.error', (_, error, client, sub) => say('backchannel.error', { sub, error: error.message }));
const server = provider.listen(PORT, '127.0.0.1', () => say('ready'));
process.on('SIGTERM', () => { server.closeAllConnections(); process.exit(0); });
