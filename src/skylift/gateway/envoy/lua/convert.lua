-- Bodies between a client that speaks one of JSON and XML and a backend that speaks the other. What is neither
-- passes as it is.
local types = { json = 'application/json', xml = 'application/xml' }

local function decoded(kind, body)
  if kind == 'json' then return json.decode(body) end
  return xml.decode(body)
end

local function encoded(kind, v, root)
  if kind == 'json' then return json.encode(v) end
  if json.is_object(v) and #v.names == 1 and json.is_object(v.values[v.names[1]]) then
    return xml.encode(v.values[v.names[1]], v.names[1])
  end
  return xml.encode(v, root)
end

local function converted(h, body, from, to)
  local context = h:filterContext()
  local text = body:getBytes(0, body:length())
  local ok, v = pcall(decoded, from, text)
  if not ok then return nil, v end
  return encoded(to, v, context:get('root'))
end

local function is(h, kind)
  return (h:headers():get('content-type') or ''):lower():find(kind, 1, true) ~= nil
end

local function replace(h, body, text, kind)
  local length = body:setBytes(text)
  h:headers():replace('content-length', tostring(length))
  h:headers():replace('content-type', types[kind])
end

function envoy_on_request(h)
  local to = h:filterContext():get('to_backend')
  local from = to == 'json' and 'xml' or 'json'
  h:streamInfo():dynamicMetadata():set('skylift.convert', 'client', from)
  h:headers():replace('accept', types[to])
  h:headers():remove('accept-encoding')
  if not is(h, from) then return end
  local limit = h:filterContext():get('limit')
  if tonumber(h:headers():get('content-length') or '0') > limit then
    h:respond({ [':status'] = '413', ['content-type'] = 'application/json' }, '{"message":"Payload too large"}')
    return
  end
  local body = h:body()
  if not body or body:length() == 0 then return end
  if body:length() > limit then
    h:respond({ [':status'] = '413', ['content-type'] = 'application/json' }, '{"message":"Payload too large"}')
    return
  end
  local text, why = converted(h, body, from, to)
  if not text then
    h:respond({ [':status'] = '400', ['content-type'] = 'application/json' },
      json.encode('the ' .. from:upper() .. ' body cannot be read: ' .. tostring(why)):gsub('^', '{"message":') .. '}')
    return
  end
  replace(h, body, text, to)
end

function envoy_on_response(h)
  local noted = h:streamInfo():dynamicMetadata():get('skylift.convert')
  if not noted then return end
  local to = noted['client']
  local from = to == 'json' and 'xml' or 'json'
  if not is(h, from) then return end
  local body = h:body()
  if not body or body:length() == 0 or body:length() > h:filterContext():get('limit') then return end
  local text = converted(h, body, from, to)
  if text then replace(h, body, text, to) end
end
