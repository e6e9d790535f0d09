-- Kong's five verbs on the fields of a JSON object. A body that is no JSON object passes as it is.
local function typed(edit)
  if edit.type == 'number' then return tonumber(edit.value) and json.number(edit.value) or edit.value end
  if edit.type == 'boolean' then return edit.value == 'true' end
  return edit.value
end

local verbs = {
  remove = function(o, edit) json.remove(o, edit.name) end,
  rename = function(o, edit)
    local v = json.get(o, edit.name)
    if v ~= nil then
      json.remove(o, edit.name)
      json.set(o, edit.value, v)
    end
  end,
  replace = function(o, edit) if json.get(o, edit.name) ~= nil then json.set(o, edit.name, typed(edit)) end end,
  add = function(o, edit) if json.get(o, edit.name) == nil then json.set(o, edit.name, typed(edit)) end end,
  set = function(o, edit) json.set(o, edit.name, typed(edit)) end,
  append = function(o, edit)
    local old = json.get(o, edit.name)
    local list = json.is_array(old) and old or json.array()
    if old ~= nil and old ~= list then list[1] = old end
    list[#list + 1] = typed(edit)
    json.set(o, edit.name, list)
  end,
}

local function changed(h, side)
  if h:filterContext():get('side') ~= side then return end
  if not (h:headers():get('content-type') or ''):lower():find('json', 1, true) then return end
  local body = h:body()
  if not body then return end
  local text = body:length() > 0 and body:getBytes(0, body:length()) or '{}'
  local ok, o = pcall(json.decode, text)
  if not ok or not json.is_object(o) then return end
  -- Asked for anew: what was got before the body came is not to be used behind it.
  for _, edit in ipairs(h:filterContext():get('edits')) do verbs[edit.verb](o, edit) end
  h:headers():replace('content-length', tostring(body:setBytes(json.encode(o))))
end

function envoy_on_request(h) changed(h, 'request') end
function envoy_on_response(h) changed(h, 'response') end
