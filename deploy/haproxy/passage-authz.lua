-- Asks passage-authz about the request: http-request lua.passage-authz URL
-- A 200 sets the identity header and the variable txn.passage_authz_allowed, any other answer goes to the client, and without
-- an answer the client gets 503. HAProxy goes on after a fault in Lua: deny the request unless the variable is true.
local IDENTITY = "x-passage-user-id"

-- With http.proxy_secret_file: the same secret, from HAProxy's environment.
local SECRET = os.getenv("PASSAGE_AUTHZ_PROXY_SECRET")

-- Of the connection to the client or of the request's body, which the check does not carry.
local NOT_SENT = {
    ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true, ["keep-alive"] = true,
    ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
    ["x-passage-authz-proxy-secret"] = true,
}

-- The values of a header as a list that begins at 1; HAProxy's begin at 0.
local function list(values)
    local copy = {}
    for _, value in pairs(values) do copy[#copy + 1] = value end
    return copy
end

local function answer(txn, status, reason, headers, body)
    txn:done(txn:reply({status = status, reason = reason, headers = headers, body = body}))
end

core.register_action("passage-authz", {"http-req"}, function(txn, url)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not NOT_SENT[name] then headers[name] = list(values) end
    end
    -- What is forwarded is what is described, whatever a client says of it.
    headers["x-forwarded-method"] = {txn.sf:method()}
    headers["x-forwarded-host"] = {txn.sf:req_fhdr("host")}
    headers["x-forwarded-uri"] = {txn.sf:pathq()}
    if SECRET then headers["x-passage-authz-proxy-secret"] = {SECRET} end

    local said = core.httpclient():get({url = url, headers = headers, timeout = 1000})
    if not said or not said.status or said.status == 0 then
        return answer(txn, 503, "Service Unavailable", {["content-length"] = {"0"}}, "")
    end
    local found = said.headers or {}
    if said.status == 200 then
        -- What the answer has empty is removed; authorization and cookie are in it with tokens.forward: false.
        for _, name in ipairs({IDENTITY, "authorization", "cookie", "x-passage-authz-proxy-secret"}) do
            local value = found[name] and list(found[name])[1]
            if value and value ~= "" then
                txn.http:req_set_header(name, value)
            elseif value or name == IDENTITY then
                txn.http:req_del_header(name)
            end
        end
        txn:set_var("txn.passage_authz_allowed", true)
        return
    end
    local body = said.body or ""
    local sent = {["content-length"] = {tostring(#body)}}
    for _, name in ipairs({"content-type", "www-authenticate", "retry-after"}) do
        if found[name] then sent[name] = list(found[name]) end
    end
    answer(txn, said.status, said.reason, sent, body)
end, 1)
